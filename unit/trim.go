package unit

import (
	"corfu/internal/wire"
	"corfu/layout"
)

// Trim gives up one address; the reply comes by Output, once that is on flash.
// StatusTooNew: it is not decided and durable; the client fills it first.
func (u *Unit) Trim(s Session, id wire.RequestID, a layout.Address) {
	switch _, mapped := u.position(a); {
	case u.phase != Open || !mapped || a > u.geo.MaxAddress():
		u.reply(s, wire.Reply{Request: id, Status: wire.StatusBadQuery})
	case a < u.trimmed:
		u.reply(s, wire.Reply{Request: id, State: wire.Trimmed})
	case u.repair.on && u.repair.address == a:
		u.repair.held = append(u.repair.held, heldTrim{s, id})
	case a >= u.base && (!u.inWindow(a) || u.cell(a).stage != settled):
		u.reply(s, wire.Reply{Request: id, Status: wire.StatusTooNew})
	case a >= u.base && u.cell(a).shadow.State() == wire.Trimmed:
		u.reply(s, wire.Reply{Request: id, State: wire.Trimmed})
	default:
		u.trims = append(u.trims, Trim{Address: a, session: s, request: id})
	}
}

func (u *Unit) position(a layout.Address) (layout.Position, bool) {
	if u.lay == nil {
		return 0, false
	}
	return u.lay.PositionAt(u.id, a)
}

func (u *Unit) settleTrim(t Trim) {
	u.stats.Trimmed++
	delete(u.bad, t.Address)
	u.markTrimmed(t.Address)
	u.noted.add(t.Address, u.epoch)
	u.reply(t.session, wire.Reply{Request: t.request, State: wire.Trimmed})
}

// markTrimmed makes the word of a settled address TRIMMED, if it is in the window still.
func (u *Unit) markTrimmed(a layout.Address) {
	if !u.inWindow(a) || u.cell(a).stage != settled {
		return
	}
	u.check(a)
	u.store(a, u.cell(a).shadow.With(wire.Trimmed))
}

// CheckTrimPrefix tells whether all addresses below a may be given up: not before they are settled, or what was told to be given up
// could be read still, and a mistaken client could give up what is not written yet. The caller makes it durable and then calls
// TrimPrefix.
func (u *Unit) CheckTrimPrefix(a layout.Address) wire.Status {
	switch {
	case u.phase != Open:
		return wire.StatusBadQuery
	case a > u.trimmed && a > u.watermark:
		return wire.StatusTooNew
	}
	return wire.StatusOK
}

// TrimPrefix gives up all addresses below a, which is durable.
func (u *Unit) TrimPrefix(a layout.Address) {
	if a <= u.trimmed {
		return
	}
	u.trimmed = a
	u.forgetCorrupt(0, a)
	if u.mem == nil {
		return
	}
	for x := u.base; x < a && u.inWindow(x); x++ {
		u.markTrimmed(x)
	}
}

// MaxAddr answers with the first address above all entries; StatusFull means that the window is where it is because flash is full,
// StatusIO that it is there because room could not be made. While room is being made, which a busy disk may take long for, it is neither.
func (u *Unit) MaxAddr(s Session, id wire.RequestID) {
	if u.phase == Open {
		u.scan(u.watermark, u.geo.Window)
	}
	r := wire.Reply{Request: id, Value: uint64(u.end)}
	if u.atLimit() {
		switch u.room {
		case RoomFull:
			r.Status = wire.StatusFull
		case RoomFails:
			r.Status = wire.StatusIO
		}
	}
	u.reply(s, r)
}

// Room is why flash has no room for more addresses than SetLimit said.
type Room uint8

const (
	RoomGrows Room = iota // more is made as the window moves
	RoomFull              // flash is full
	RoomFails             // an error keeps it from being made
)

// SetRoom says why there is no more room.
func (u *Unit) SetRoom(r Room) { u.room = r }

// StateOf tells the state of an address, if the unit's memory knows it: not below the window.
// An address that is not decided and durable is EMPTY.
func (u *Unit) StateOf(a layout.Address) (s wire.State, known bool) {
	switch {
	case a < u.trimmed:
		return wire.Trimmed, true
	case a < u.base:
		return wire.Empty, false
	case u.mem == nil || !u.inWindow(a) || u.cell(a).stage != settled:
		return wire.Empty, true
	}
	return u.cell(a).shadow.State(), true
}

func (u *Unit) reply(to Session, r wire.Reply) { u.out.Replies = append(u.out.Replies, Reply{to, r}) }
