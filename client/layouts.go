package client

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	grpcend "corfu/internal/control"
	"corfu/internal/sleep"
	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
)

// layoutTimeout bounds one question to the layout servers: long enough for them to elect a leader.
const layoutTimeout = 2 * time.Second

// knownTimeout bounds the question for what the layout servers know, where none of them leads.
const knownTimeout = 500 * time.Millisecond

// getLayout asks the leader of the layout servers, and installs what it answers. While that one is silent, or when it cannot be reached, a
// newer layout that a unit knows will do as well.
func (l *Log) getLayout(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, layoutTimeout)
	defer cancel()
	asked := make(chan error, 1)
	go func() { asked <- l.askLeader(ctx) }()
	t := time.NewTicker(headStart)
	defer t.Stop()
	for {
		select {
		case err := <-asked:
			if err != nil && l.news.newest(ctx) {
				return nil
			}
			return err
		case <-t.C:
			if l.news.newest(ctx) {
				cancel()
				<-asked
				return nil
			}
		}
	}
}

func (l *Log) askLeader(ctx context.Context) error {
	lay, err := grpcend.Ask(ctx, l.layouts, func(ctx context.Context, c pb.LayoutServiceClient) (*layout.Layout, error) {
		m, err := c.Get(ctx, &pb.GetRequest{})
		if err != nil {
			return nil, err
		}
		l.trouble.Store(&m.Trouble)
		l.speak.Store(&m.FabricProvider)
		return pbconv.ToLayout(m)
	})
	if err != nil {
		return err
	}
	return l.install(lay)
}

// askKnown asks every layout server what it knows, leader or not, and installs the newest: where none leads a reader begins with that.
// Appends and reads are judged by the epoch that the units show, so that a layout which is old delays them and does no harm.
func (l *Log) askKnown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, knownTimeout)
	defer cancel()
	answers := make(chan *layout.Layout, len(l.o.LayoutServers))
	for _, addr := range l.o.LayoutServers {
		go func() {
			lay, err := l.askKnownAt(ctx, addr)
			if err != nil {
				l.log.Debug("a layout server knows no layout", "server", addr, "cause", err)
			}
			answers <- lay
		}()
	}
	var newest *layout.Layout
	for range l.o.LayoutServers {
		if lay := <-answers; lay != nil && (newest == nil || lay.Epoch > newest.Epoch) {
			newest = lay
		}
	}
	if newest == nil {
		return errors.New("no layout server knows a layout")
	}
	return l.install(newest)
}

func (l *Log) askKnownAt(ctx context.Context, addr string) (*layout.Layout, error) {
	cc, err := l.control.get(addr)
	if err != nil {
		return nil, err
	}
	m, err := pb.NewLayoutServiceClient(cc).Get(ctx, &pb.GetRequest{Known: true})
	if err != nil {
		return nil, err
	}
	return pbconv.ToLayout(m)
}

func (l *Log) newClientID(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, layoutTimeout)
	defer cancel()
	id, err := grpcend.Ask(ctx, l.layouts, func(ctx context.Context, c pb.LayoutServiceClient) (uint32, error) {
		m, err := c.NewClientID(ctx, &pb.NewClientIDRequest{})
		if status.Code(err) == codes.Unknown {
			err = status.Error(codes.Unavailable, err.Error()) // an id that was handed out to nobody is no harm: ask again
		}
		return m.GetClient(), err
	})
	switch {
	case err != nil:
		return err
	case id == 0:
		return errors.New("the layout server handed out client id 0")
	}
	l.ids.Store(&ids{client: layout.ClientID(id)})
	return nil
}

// follow keeps a stream of layouts open at the leader of the layout servers, so that most clients know of a new epoch before they are
// refused.
func (l *Log) follow(ctx context.Context) {
	var b backoff
	for ctx.Err() == nil {
		addr := l.layouts.Next()
		came, err := l.followFrom(ctx, addr)
		if came {
			b = backoff{}
		}
		if ctx.Err() == nil {
			l.log.Debug("layout stream ended", "server", addr, "cause", err)
		}
		l.layouts.Failed(addr, err)
		_ = sleep.For(ctx, b.step())
	}
}

// followFrom installs what addr sends, and reports whether any layout came.
func (l *Log) followFrom(ctx context.Context, addr string) (came bool, err error) {
	cc, err := l.control.get(addr)
	if err != nil {
		return false, err
	}
	stream, err := pb.NewLayoutServiceClient(cc).Watch(ctx, &pb.WatchRequest{})
	if err != nil {
		return false, err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return came, err
		}
		lay, err := pbconv.ToLayout(m)
		if err == nil {
			err = l.install(lay)
		}
		if err != nil {
			return came, err
		}
		came = true
	}
}
