package sim

import (
	"context"
	"time"

	"corfu/internal/control"
	"corfu/internal/wire/pb"
)

// What an operator asks for, and who is to do it.

func (x *injector) reconfigure() { x.ask("an epoch", &pb.ReconfigureRequest{Reason: "sim"}) }

// failOver asks for the other sequencer. Refused if there is none, or if it does not answer.
func (x *injector) failOver() {
	if x.Shape.Standby {
		x.ask("the other sequencer", &pb.ReconfigureRequest{Reason: "sim", Failover: true})
	}
}

// ask asks one of the layout servers.
func (x *injector) ask(what string, q *pb.ReconfigureRequest) {
	i := x.rand.IntN(x.Shape.Layouts)
	h := x.admin()
	x.h.note("fault: layout server %d is asked for %s", i+1, what)
	x.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		cc, err := control.Dial(x.c.names[i], h.DialOptions()...)
		if err != nil {
			x.fail(err)
			return
		}
		defer cc.Close()
		m, err := pb.NewLayoutServiceClient(cc).Reconfigure(ctx, q)
		x.h.note("layout server %d: epoch %d, %v", i+1, m.GetEpoch(), err)
	})
}

// admin is the host of whoever asks for epochs.
func (x *injector) admin() *Host { return x.c.f.NewHost("admin") }

// elect makes one of the layout servers the leader of a new term. The leader before it goes on for a while: two reconfigurers.
func (x *injector) elect() {
	h, d := layoutName(1+x.rand.IntN(x.Shape.Layouts)), x.some()
	x.h.note("fault: %s leads, the leader before it learns of that after %v", h, d)
	x.c.raft.elect(h)
	x.later(d, x.c.raft.depose)
}
