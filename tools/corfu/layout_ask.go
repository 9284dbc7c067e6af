package main

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"corfu/internal/control"
	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
)

func (a *app) layoutShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Print the layout in force", Args: cobra.NoArgs,
		RunE: a.body(func(ctx context.Context, _ []string) error {
			l, err := a.getLayout(ctx)
			if err != nil {
				return err
			}
			return a.printLayout(l)
		}),
	}
}

// getLayout asks for the layout in force.
func (a *app) getLayout(ctx context.Context) (l *layout.Layout, err error) {
	m, err := askLayout(ctx, a, func(ctx context.Context, c pb.LayoutServiceClient) (*pb.Layout, error) {
		return c.Get(ctx, &pb.GetRequest{})
	})
	if err != nil {
		return nil, err
	}
	return pbconv.ToLayout(m)
}

func (a *app) layoutReconfigureCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "reconfigure", Short: "Move the cluster to a new epoch", Args: cobra.NoArgs,
		Long: "Seal the epoch in force, reconcile the units and activate a new epoch with the same members.\nClients go on by themselves.",
	}
	cmd.Flags().StringVar(&reason, "reason", "asked for by an operator", "what the logs of the layout server say of it")
	cmd.RunE = a.body(func(ctx context.Context, _ []string) error {
		m, err := askLayout(ctx, a, func(ctx context.Context, c pb.LayoutServiceClient) (*pb.Layout, error) {
			return c.Reconfigure(control.Begin(ctx), &pb.ReconfigureRequest{Reason: reason})
		})
		if err != nil {
			return err
		}
		l, err := pbconv.ToLayout(m)
		if err != nil {
			return err
		}
		if a.json() {
			return a.printLayout(l)
		}
		_, err = fmt.Fprintf(a.stdout, "epoch %d is active, from position %d on\n", l.Epoch, l.Start)
		return err
	})
	return cmd
}

// askLayout asks the leader of the layout servers. It may run ask several times at once, as control.Ask does: ask returns what it learns, and
// writes to nothing that it shares.
func askLayout[T any](ctx context.Context, a *app, ask func(context.Context, pb.LayoutServiceClient) (T, error)) (T, error) {
	answer, servers, err := askLeader(ctx, a, ask)
	return answer, explainLayout(servers, err)
}

// askLeader is askLayout with gRPC's own error. It returns the servers that it asked, too.
func askLeader[T any](ctx context.Context, a *app, ask func(context.Context, pb.LayoutServiceClient) (T, error)) (answer T, servers []string, err error) {
	found, err := a.findCluster()
	if err != nil {
		return answer, nil, err
	}
	conns, err := a.newConns(found)
	if err != nil {
		return answer, nil, err
	}
	defer conns.close()
	for _, addr := range found.LayoutServers {
		if err := a.checkClear(addr, len(conns.options) > 0); err != nil {
			return answer, nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	answer, err = control.Ask(ctx, control.NewLayouts(found.LayoutServers, conns.dial), ask)
	return answer, found.LayoutServers, err
}

// explainLayout says what to do about an error of askLeader.
func explainLayout(servers []string, err error) error {
	s, ok := grpcstatus.FromError(err)
	switch {
	case err == nil:
		return nil
	case control.Answered(err):
		return fmt.Errorf("no layout server leads (corfu layout status shows each): %s", s.Message())
	case ok && (s.Code() == codes.Unavailable || s.Code() == codes.DeadlineExceeded):
		return fmt.Errorf("no cluster answers at %s: is it up? corfu dev starts one, --cluster names another: %s",
			strings.Join(servers, ", "), s.Message())
	case ok:
		return fmt.Errorf("the layout server refused: %s", s.Message())
	}
	return err
}

// layoutConns are the connections of one command to layout servers.
type layoutConns struct {
	a       *app
	options []grpc.DialOption // credentials; none: in clear
	mu      sync.Mutex
	open    map[string]*grpc.ClientConn
}

func (a *app) newConns(c clusterFile) (*layoutConns, error) {
	options, err := a.dialOptions(c)
	return &layoutConns{a: a, options: options, open: map[string]*grpc.ClientConn{}}, err
}

func (c *layoutConns) dial(addr string) (grpc.ClientConnInterface, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn := c.open[addr]; conn != nil {
		return conn, nil
	}
	if err := c.a.checkClear(addr, len(c.options) > 0); err != nil { // a server may have named it
		return nil, err
	}
	conn, err := control.Dial(addr, c.options...)
	if err != nil {
		return nil, err
	}
	c.open[addr] = conn
	return conn, nil
}

func (c *layoutConns) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.open {
		_ = conn.Close()
	}
}

// layoutJSON is a layout as scripts read it.
type layoutJSON struct {
	Log          string        `json:"log"`
	Epoch        layout.Epoch  `json:"epoch"`
	Durability   string        `json:"durability"`
	PageSize     int           `json:"page_size"`
	SessionSlots int           `json:"session_slots"`
	MaxSessions  int           `json:"max_sessions"`
	MaxPayload   int           `json:"max_payload"`
	Window       int           `json:"window"`
	Start        uint64        `json:"start"`
	Sequencer    memberJSON    `json:"sequencer"`
	Units        []memberJSON  `json:"units"`
	Spares       []memberJSON  `json:"spares,omitempty"`
	Standbys     []memberJSON  `json:"standbys,omitempty"`
	Leaving      []leavingJSON `json:"leaving,omitempty"`
	Segments     []segmentJSON `json:"segments"`
}

type memberJSON struct {
	ID      uint32 `json:"id"`
	Control string `json:"control"`
}

// leavingJSON is a unit that leaves its chains once others hold what it holds; drained: it has, or was a spare.
type leavingJSON struct {
	Unit    uint32 `json:"unit"`
	By      uint32 `json:"by,omitempty"`
	Drained bool   `json:"drained"`
}

type segmentJSON struct {
	Start  uint64      `json:"start"`
	Chains []chainJSON `json:"chains"`
}

type chainJSON struct {
	Base  uint64          `json:"base"`
	Units []layout.UnitID `json:"units"`
}

func describeLayout(l *layout.Layout) layoutJSON {
	out := layoutJSON{
		Log: l.Log.String(), Epoch: l.Epoch, Durability: l.Durability.String(),
		PageSize: l.Geometry.PageSize, MaxPayload: l.Geometry.MaxPayload(), Window: l.Geometry.Window,
		SessionSlots: l.Geometry.SessionSlots, MaxSessions: l.Geometry.MaxSessions,
		Start:     uint64(l.Start),
		Sequencer: memberJSON{uint32(l.Sequencer.ID), l.Sequencer.Control},
	}
	for _, u := range l.Units {
		out.Units = append(out.Units, memberJSON{uint32(u.ID), u.Control})
	}
	for _, u := range l.Spares {
		out.Spares = append(out.Spares, memberJSON{uint32(u.ID), u.Control})
	}
	for _, s := range l.Standbys {
		out.Standbys = append(out.Standbys, memberJSON{uint32(s.ID), s.Control})
	}
	for _, x := range l.Leaving {
		out.Leaving = append(out.Leaving, leavingJSON{uint32(x.Unit), uint32(x.By), !l.IsMember(x.Unit)})
	}
	for _, s := range l.Segments {
		seg := segmentJSON{Start: uint64(s.Start)}
		for _, c := range s.Chains {
			seg.Chains = append(seg.Chains, chainJSON{uint64(c.Base), c.Units})
		}
		out.Segments = append(out.Segments, seg)
	}
	return out
}

func (a *app) printLayout(l *layout.Layout) error {
	if a.json() {
		return a.printJSON(describeLayout(l))
	}
	fmt.Fprint(a.stdout, strings.Join(layoutLines(l), "\n"), "\n\n")
	return a.printTable(chainRows(l))
}

// layoutLines are what stands above the table of a layout.
func layoutLines(l *layout.Layout) []string {
	g := l.Geometry
	lines := []string{
		fmt.Sprintf("log         %s", l.Log),
		fmt.Sprintf("epoch       %d, from position %d on", l.Epoch, l.Start),
		fmt.Sprintf("durability  %s", l.Durability),
		fmt.Sprintf("pages       %d bytes, up to %d of them payload; a window of %d pages", g.PageSize, g.MaxPayload(), g.Window),
		fmt.Sprintf("sessions    max_sessions %d, each of up to %d staging pages", g.MaxSessions, g.SessionSlots),
		fmt.Sprintf("sequencer   %d at %s", l.Sequencer.ID, l.Sequencer.Control),
	}
	for _, s := range l.Standbys {
		lines = append(lines, fmt.Sprintf("standby     %d at %s", s.ID, s.Control))
	}
	for _, u := range l.Spares {
		kind := "spare  "
		if _, out := l.IsLeaving(u.ID); out {
			kind = "drained"
		}
		lines = append(lines, fmt.Sprintf("%s     %d at %s", kind, u.ID, u.Control))
	}
	for _, x := range l.Leaving {
		if l.IsMember(x.Unit) {
			lines = append(lines, fmt.Sprintf("leaving     %d, once others hold what it holds", x.Unit))
		}
	}
	return lines
}

func chainRows(l *layout.Layout) [][]string {
	rows := [][]string{{"FROM", "CHAIN", "BASE", "UNITS, HEAD FIRST"}}
	for _, s := range l.Segments {
		for i, c := range s.Chains {
			var units []string
			for _, id := range c.Units {
				u, _ := l.Unit(id)
				units = append(units, fmt.Sprintf("%d at %s", id, u.Control))
			}
			rows = append(rows, []string{fmt.Sprint(s.Start), fmt.Sprint(i), fmt.Sprint(c.Base), strings.Join(units, ", ")})
		}
	}
	return rows
}
