package nbd

import (
	"fmt"
	"io"
)

// negotiate goes through the handshake until the client may send requests.
func (s *serving) negotiate() error {
	hello := be.AppendUint64(nil, magicInit)
	hello = be.AppendUint64(hello, magicOption)
	hello = be.AppendUint16(hello, handshakeFixedNewstyle|handshakeNoZeroes)
	if err := s.send(hello); err != nil {
		return err
	}
	var b [16]byte
	if _, err := io.ReadFull(s.r, b[:4]); err != nil {
		return err
	}
	flags := be.Uint32(b[:])
	if flags&handshakeFixedNewstyle == 0 || flags&^(handshakeFixedNewstyle|handshakeNoZeroes) != 0 {
		return fmt.Errorf("client flags %#x: only fixed newstyle is spoken here", flags)
	}
	for {
		if _, err := io.ReadFull(s.r, b[:]); err != nil {
			return err
		}
		option, n := be.Uint32(b[8:]), be.Uint32(b[12:])
		switch {
		case be.Uint64(b[:]) != magicOption:
			return fmt.Errorf("option without its magic: % x", b[:8])
		case n > maxOption:
			return fmt.Errorf("option %d with %d bytes: at most %d", option, n, maxOption)
		}
		data := make([]byte, n)
		if _, err := io.ReadFull(s.r, data); err != nil {
			return err
		}
		if done, err := s.option(option, data, flags&handshakeNoZeroes == 0); done || err != nil {
			return err
		}
	}
}

// option answers one option; done says that requests come next.
func (s *serving) option(option uint32, data []byte, zeroes bool) (done bool, err error) {
	switch option {
	case optExportName:
		b := s.export(nil)
		if zeroes {
			b = append(b, make([]byte, 124)...)
		}
		return true, s.send(b)
	case optInfo, optGo:
		if !validInfo(data) {
			return false, s.send(appendOptionReply(nil, option, replyErrInvalid, nil))
		}
		info := s.export(be.AppendUint16(nil, infoExport))
		b := appendOptionReply(nil, option, replyInfo, info)
		sizes := be.AppendUint16(nil, infoBlockSize)
		sizes = be.AppendUint32(sizes, SectorSize)
		sizes = be.AppendUint32(sizes, preferredBlock)
		sizes = be.AppendUint32(sizes, maxRequest)
		b = appendOptionReply(b, option, replyInfo, sizes)
		b = appendOptionReply(b, option, replyAck, nil)
		return option == optGo, s.send(b)
	case optList:
		if len(data) != 0 {
			return false, s.send(appendOptionReply(nil, option, replyErrInvalid, nil))
		}
		name := append(be.AppendUint32(nil, uint32(len(exportName))), exportName...)
		b := appendOptionReply(nil, option, replyServer, name)
		return false, s.send(appendOptionReply(b, option, replyAck, nil))
	case optAbort:
		_ = s.send(appendOptionReply(nil, option, replyAck, nil)) // the client may be gone
		return false, errGoodbye
	}
	return false, s.send(appendOptionReply(nil, option, replyErrUnsup, nil))
}

// export appends what a client learns about the disk.
func (s *serving) export(b []byte) []byte {
	b = be.AppendUint64(b, uint64(s.disk.Size()))
	return be.AppendUint16(b, transmissionFlags)
}

// validInfo tells whether data is that of INFO and GO: length of a name (4), name, number of requests (2), requests (2 each).
func validInfo(data []byte) bool {
	if len(data) < 6 {
		return false
	}
	name := uint64(be.Uint32(data))
	if name > uint64(len(data)-6) {
		return false
	}
	rest := data[4+name:]
	return len(rest) == 2+2*int(be.Uint16(rest))
}

func (s *serving) send(b []byte) error {
	if _, err := s.w.Write(b); err != nil {
		return err
	}
	return s.w.Flush()
}
