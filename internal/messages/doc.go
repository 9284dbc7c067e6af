// Package messages carries control messages over the fabric, beside the control plane: a layout leader seals units and sequencers with
// them, and clients ask units for the newest layout. So a network that is broken alone, the fabric's or TCP's, stops neither.
//
// A connection is asked for over the control plane (pb.MessageService), which decides what it may do, and is made with a token that is
// good once. It carries messages of internal/wire and nothing else: no memory is registered for it at either end, and so a seal
// need not end it. It lives until one end closes it or the fabric breaks.
//
// What is not here: any message of the data path, and opening a connection where the control plane does not answer.
package messages
