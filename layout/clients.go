package layout

// MaxClient is the last client id that is handed out. The ids above it are for clients that have
// not appended yet: each draws one at random, by which units tell its sessions from others'. No
// attempt id carries one.
const MaxClient ClientID = 1<<31 - 1

// LeaseClients hands out Count client ids, one after the other, all of them above Above and above
// every id that was handed out before. Result.Client is the first and Result.Last the last; there
// may be fewer than Count. It fails with ErrNoClients.
//
// Above raises the floor where ids were seen in the log that this store does not know of: one that
// was put back from a copy.
type LeaseClients struct {
	Count uint32
	Above ClientID
}

func (c LeaseClients) appendTo(b []byte) []byte {
	return le.AppendUint32(le.AppendUint32(append(b, codeLeaseClients), c.Count), uint32(c.Above))
}

func (c LeaseClients) apply(s *State) (Result, error) {
	last := max(s.clients, c.Above)
	if last >= MaxClient || c.Count == 0 {
		return Result{}, ErrNoClients
	}
	r := Result{Client: last + 1, Last: last + ClientID(min(c.Count, uint32(MaxClient-last)))}
	s.clients = r.Last
	return r, nil
}

func (NewClient) apply(s *State) (Result, error) {
	r, err := LeaseClients{Count: 1}.apply(s)
	return r, err
}

// Clients is the last client id that was handed out; 0 if none was.
func (s *State) Clients() ClientID { return s.clients }
