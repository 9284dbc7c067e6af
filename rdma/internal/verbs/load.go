//go:build cgo

package verbs

/*
#cgo LDFLAGS: -ldl -lpthread
#include "cf.h"
*/
import "C"

import (
	"fmt"
	"sync"
	"unsafe"
)

var load = sync.OnceValue(func() error {
	var msg [256]C.char
	if C.cf_load(&msg[0], C.size_t(len(msg))) != 0 {
		return fmt.Errorf("%w: %s; install libibverbs1 librdmacm1 ibverbs-providers (Debian) or rdma-core",
			ErrUnavailable, C.GoString(&msg[0]))
	}
	return nil
})

// Load opens the libraries, once. Its error wraps ErrUnavailable. Everything else in the
// package that can fail calls it.
func Load() error { return load() }

// The Go mirrors of the C structs have their size; a difference does not compile.
var (
	_ [unsafe.Sizeof(WR{})]byte       = [C.sizeof_cf_wr]byte{}
	_ [unsafe.Sizeof(Call{})]byte     = [C.sizeof_cf_call]byte{}
	_ [unsafe.Sizeof(Slot{})]byte     = [C.sizeof_cf_slot]byte{}
	_ [unsafe.Sizeof(Msg{})]byte      = [C.sizeof_cf_msg]byte{}
	_ [unsafe.Sizeof(RecvCall{})]byte = [C.sizeof_cf_rcall]byte{}
	_ [MaxBatch]byte                  = [C.CF_BATCH]byte{}
	_ [MaxInline]byte                 = [C.CF_INLINE]byte{}
	_ [OpWriteImm]byte                = [C.CF_WRITE_IMM]byte{}
	_ [StatusNoMessage]byte           = [C.CF_NO_MESSAGE]byte{}
)
