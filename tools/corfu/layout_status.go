package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"corfu/internal/clusterstatus"
	"corfu/internal/wire/pb"
)

// statusJSON is the state of the cluster as scripts read it.
type statusJSON struct {
	Epoch           uint64             `json:"epoch"`
	EpochInProgress uint64             `json:"epoch_in_progress,omitempty"`
	Phase           string             `json:"phase,omitempty"`
	Deficit         uint32             `json:"deficit"` // replicas that chains lack
	Rebuilds        []rebuildJSON      `json:"rebuilds,omitempty"`
	Members         []memberStatusJSON `json:"members"`
	LayoutServers   []serverStatusJSON `json:"layout_servers"`
}

// rebuildJSON is the copy of older pages to a unit that joined a chain.
type rebuildJSON struct {
	Unit   uint32 `json:"unit"`
	Pages  uint64 `json:"pages"`
	Copied uint64 `json:"copied"`
	Bytes  uint64 `json:"bytes"`            // sent by the layout server that leads now
	ETA    uint64 `json:"eta_ms,omitempty"` // until all is copied; not known: left out
}

type memberStatusJSON struct {
	Role    string `json:"role,omitempty"` // spare or standby
	Name    string `json:"name"`
	Control string `json:"control"`
	State   string `json:"state"`
	Epoch   uint64 `json:"epoch"`
	Error   string `json:"error,omitempty"`
	Store   string `json:"store,omitempty"`
	End     uint64 `json:"end"`
	Corrupt uint32 `json:"corrupt"`        // pages known to be corrupt there
	Lost    uint32 `json:"lost,omitempty"` // of them, those that no replica can restore
}

func (a *app) layoutStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Print the state of every member, and which layout server leads", Args: cobra.NoArgs,
		RunE: a.body(func(ctx context.Context, _ []string) error {
			m, err := askLayout(ctx, a, func(ctx context.Context, c pb.LayoutServiceClient) (*pb.StatusReply, error) {
				return c.Status(ctx, &pb.StatusRequest{})
			})
			// Where nobody leads, the state of each server is what helps.
			servers, some := a.askServers(ctx)
			switch {
			case err == nil:
				return a.printStatus(m, servers)
			case some && !a.json():
				return errors.Join(a.printServers(servers), err)
			}
			return err
		}),
	}
}

func (a *app) printStatus(m *pb.StatusReply, servers []serverStatusJSON) error {
	if a.json() {
		out := statusJSON{Epoch: m.GetLayout().GetEpoch(), EpochInProgress: m.GetEpochInProgress(), Phase: m.GetPhase(), Deficit: m.GetDeficit(),
			LayoutServers: servers}
		for _, r := range m.GetRebuilds() {
			out.Rebuilds = append(out.Rebuilds, rebuildJSON{r.GetUnit(), r.GetTo() - r.GetFrom(), r.GetCopied() - r.GetFrom(), r.GetBytes(), r.GetEtaMs()})
		}
		for _, s := range m.GetMembers() {
			out.Members = append(out.Members, memberStatusJSON{
				s.GetRole(), s.GetName(), s.GetControl(), s.GetState(), s.GetEpoch(), s.GetError(), s.GetStore(), s.GetMaxAddress(), s.GetCorrupt(), s.GetLost(),
			})
		}
		return a.printJSON(out)
	}
	fmt.Fprintf(a.stdout, "epoch %d is active", m.GetLayout().GetEpoch())
	if n := m.GetEpochInProgress(); n != 0 {
		fmt.Fprintf(a.stdout, ", going to %d (%s)", n, m.GetPhase())
	}
	fmt.Fprintln(a.stdout)
	if p := m.GetPhase(); p != "" && m.GetEpochInProgress() == 0 {
		fmt.Fprintln(a.stdout, p)
	}
	if n := m.GetDeficit(); n > 0 {
		fmt.Fprintf(a.stdout, "UNDER-REPLICATED: chains lack %d replicas\n", n)
	}
	for _, r := range m.GetRebuilds() {
		fmt.Fprintf(a.stdout, "unit %d: %d of %d older pages copied, %.1f MiB sent%s\n", r.GetUnit(), r.GetCopied()-r.GetFrom(), r.GetTo()-r.GetFrom(),
			float64(r.GetBytes())/(1<<20), etaText(r))
	}
	fmt.Fprintln(a.stdout)
	rows := [][]string{{"MEMBER", "STATE", "EPOCH", "CONTROL", "PAGES", "CORRUPT", "STORE"}}
	for _, s := range m.GetMembers() {
		state := s.GetState()
		if s.GetError() != "" {
			state += " (" + clusterstatus.Brief(s.GetError()) + ")"
		}
		if s.GetRole() != "" {
			state = s.GetRole() + ", " + state
		}
		rows = append(rows, []string{
			s.GetName(), state, fmt.Sprint(s.GetEpoch()), s.GetControl(), fmt.Sprint(s.GetMaxAddress()), corruptText(s), s.GetStore(),
		})
	}
	if err := a.printTable(rows); err != nil {
		return err
	}
	fmt.Fprintln(a.stdout)
	return a.printServers(servers)
}

// etaText is when a copy will be done.
func etaText(r *pb.RebuildStatus) string {
	switch {
	case r.GetCopied() == r.GetTo():
		return ", to be handed over"
	case r.GetEtaMs() == 0:
		return ""
	}
	return ", about " + (time.Duration(r.GetEtaMs()) * time.Millisecond).Round(time.Second).String() + " left"
}

// corruptText is how many corrupt pages a member has, and whether they can be restored.
func corruptText(s *pb.MemberStatus) string {
	if s.GetLost() == 0 {
		return fmt.Sprint(s.GetCorrupt())
	}
	return fmt.Sprintf("%d (%d lost)", s.GetCorrupt(), s.GetLost())
}
