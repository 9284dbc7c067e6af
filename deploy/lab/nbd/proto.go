package nbd

import "encoding/binary"

// Names as in the protocol document, without the NBD_ in front.
const (
	magicInit        = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption      = 0x49484156454f5054 // "IHAVEOPT"
	magicOptionReply = 0x0003e889045565a9
	magicRequest     = 0x25609513
	magicReply       = 0x67446698

	handshakeFixedNewstyle = 1 << 0
	handshakeNoZeroes      = 1 << 1

	optExportName = 1
	optAbort      = 2
	optList       = 3
	optInfo       = 6
	optGo         = 7

	replyAck        = 1
	replyServer     = 2
	replyInfo       = 3
	replyErrUnsup   = 1<<31 + 1
	replyErrInvalid = 1<<31 + 3

	infoExport    = 0
	infoBlockSize = 3

	flagHasFlags  = 1 << 0
	flagSendFlush = 1 << 2
	flagSendFUA   = 1 << 3
	flagSendTrim  = 1 << 5

	// A flush on one connection covers what was written on the others.
	flagMultiConn = 1 << 8

	transmissionFlags = flagHasFlags | flagSendFlush | flagSendFUA | flagSendTrim | flagMultiConn

	cmdRead  = 0
	cmdWrite = 1
	cmdDisc  = 2
	cmdFlush = 3
	cmdTrim  = 4

	cmdFlagFUA = 1 << 0

	errOK     = 0
	errIO     = 5
	errInval  = 22
	errNoSpc  = 28
	errNotSup = 95

	maxOption  = 4096     // bytes of an option's data: the names that it may hold have 4096 at most
	maxRequest = 32 << 20 // bytes of one request, what the protocol lets a client assume
	exportName = ""

	preferredBlock = 4096
)

var be = binary.BigEndian

const requestSize = 28

// request is the head of a request.
type request struct {
	flags, kind uint16
	handle      uint64
	offset      uint64
	length      uint32
}

// parseRequest takes the requestSize bytes of b apart; ok tells whether the magic is right.
func parseRequest(b []byte) (r request, ok bool) {
	r = request{be.Uint16(b[4:]), be.Uint16(b[6:]), be.Uint64(b[8:]), be.Uint64(b[16:]), be.Uint32(b[24:])}
	return r, be.Uint32(b) == magicRequest
}

// appendReply appends the head of a reply.
func appendReply(b []byte, err uint32, handle uint64) []byte {
	b = be.AppendUint32(b, magicReply)
	b = be.AppendUint32(b, err)
	return be.AppendUint64(b, handle)
}

// appendOptionReply appends a reply of the negotiation.
func appendOptionReply(b []byte, option, kind uint32, data []byte) []byte {
	b = be.AppendUint64(b, magicOptionReply)
	b = be.AppendUint32(b, option)
	b = be.AppendUint32(b, kind)
	b = be.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}
