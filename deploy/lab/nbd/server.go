package nbd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Serve accepts connections from l and serves d on each until l is closed. It then closes the connections, waits until nothing
// serves them any more, and returns the listener's error. It calls complain with what went wrong on a connection. Nil discards that.
func Serve(l net.Listener, d *Disk, complain func(error)) error {
	if complain == nil {
		complain = func(error) {}
	}
	var (
		serving sync.WaitGroup
		mu      sync.Mutex
		open    = map[net.Conn]bool{}
	)
	for {
		c, err := l.Accept()
		if err != nil {
			mu.Lock()
			for c := range open {
				_ = c.Close()
			}
			mu.Unlock()
			serving.Wait()
			return fmt.Errorf("nbd: %w", err)
		}
		mu.Lock()
		open[c] = true
		mu.Unlock()
		serving.Go(func() {
			if err := ServeConn(c, d); err != nil {
				complain(err)
			}
			mu.Lock()
			defer mu.Unlock()
			delete(open, c)
		})
	}
}

// ServeConn serves d on one connection, requests in their order, until the client says goodbye or hangs up. It closes c.
// An error says that the client broke the protocol or that the connection broke.
func ServeConn(c net.Conn, d *Disk) error {
	defer c.Close()
	s := &serving{disk: d, r: bufio.NewReaderSize(c, 64<<10), w: bufio.NewWriterSize(c, 64<<10)}
	err := s.negotiate()
	if err == nil {
		err = s.transmit()
	}
	if errors.Is(err, errGoodbye) || errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("nbd: %w", err)
	}
	return nil
}

// errGoodbye: the client ended the session in the way the protocol has for it.
var errGoodbye = errors.New("client left")

// serving is one connection.
type serving struct {
	disk *Disk
	r    *bufio.Reader
	w    *bufio.Writer
	buf  []byte // of the largest request so far
	head [requestSize]byte
}

// transmit answers requests until the client leaves. It never returns nil.
func (s *serving) transmit() error {
	for {
		// Answers wait for each other only while more requests are here already.
		if s.r.Buffered() == 0 {
			if err := s.w.Flush(); err != nil {
				return err
			}
		}
		if _, err := io.ReadFull(s.r, s.head[:]); err != nil {
			return err
		}
		q, ok := parseRequest(s.head[:])
		switch {
		case !ok:
			return fmt.Errorf("request without its magic: % x", s.head[:4])
		case q.kind == cmdDisc:
			return errGoodbye
		case (q.kind == cmdRead || q.kind == cmdWrite) && q.length > maxRequest:
			return fmt.Errorf("request of %d bytes: at most %d", q.length, maxRequest)
		}
		data, err := s.serve(q)
		if errors.Is(err, errConnection) {
			return err
		}
		if err != nil {
			data = nil
		}
		if _, err := s.w.Write(appendReply(s.head[:0], code(err), q.handle)); err != nil {
			return err
		}
		if _, err := s.w.Write(data); err != nil {
			return err
		}
	}
}

// errConnection: the connection broke within a request.
var errConnection = errors.New("connection broken")

// errCommand: not one of ours.
var errCommand = errors.New("command not supported")

// serve carries one request out and returns what the client reads.
func (s *serving) serve(q request) ([]byte, error) {
	fua := q.flags&cmdFlagFUA != 0
	switch q.kind {
	case cmdRead:
		b := s.room(q.length)
		return b, s.disk.Read(b, int64(q.offset))
	case cmdWrite:
		b := s.room(q.length)
		if _, err := io.ReadFull(s.r, b); err != nil {
			return nil, fmt.Errorf("%w: %w", errConnection, err)
		}
		return nil, s.disk.Write(b, int64(q.offset), fua)
	case cmdFlush:
		return nil, s.disk.Flush()
	case cmdTrim:
		return nil, s.disk.check(int(q.length), int64(q.offset))
	}
	return nil, errCommand
}

func (s *serving) room(n uint32) []byte {
	if int(n) > len(s.buf) {
		s.buf = make([]byte, n)
	}
	return s.buf[:n]
}

// code is the protocol's number for an error.
func code(err error) uint32 {
	switch {
	case err == nil:
		return errOK
	case errors.Is(err, ErrAlign):
		return errInval
	case errors.Is(err, ErrRange):
		return errNoSpc
	case errors.Is(err, errCommand):
		return errNotSup
	}
	return errIO
}
