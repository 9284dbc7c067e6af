// Package nvme asks an NVMe disk how it wears: the SMART / Health Information log page (NVM Express Base Specification, log page
// identifier 02h), by the passthrough ioctl of Linux (include/uapi/linux/nvme_ioctl.h).
package nvme

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrUnreadable means that the disk is none of NVMe, or that this process may not ask it. Only one with CAP_SYS_ADMIN may: Linux 6.2 opened
// the passthrough to others for some commands, but of the admin commands for parts of Identify alone (nvme_cmd_allowed in
// drivers/nvme/host/ioctl.c; nvme_user_cmd before that).
var ErrUnreadable = errors.New("no health information from the disk")

// Smart is what the disk says of itself.
type Smart struct {
	CriticalWarning byte    // bits of the specification; 0: all is well
	PercentUsed     int     // of the endurance that the maker expects; may go beyond 100, up to 255
	SparePercent    int     // of the spare blocks, what is left
	SpareThreshold  int     // below which the disk warns
	Kelvin          int     // composite temperature
	WrittenBytes    float64 // by the host
	MediaErrors     float64 // that the disk could not correct
}

// passthru is struct nvme_passthru_cmd.
type passthru struct {
	opcode, flags                                  uint8
	_                                              uint16
	nsid, cdw2, cdw3                               uint32
	metadata, addr                                 uint64
	metadataLen, dataLen                           uint32
	cdw10, cdw11, cdw12, cdw13, cdw14, cdw15, wait uint32
	result                                         uint32
}

// adminCommand is NVME_IOCTL_ADMIN_CMD, _IOWR('N', 0x41, struct nvme_passthru_cmd).
const adminCommand = 3<<30 | unsafe.Sizeof(passthru{})<<16 | 'N'<<8 | 0x41

const _ = uint(72-unsafe.Sizeof(passthru{})) * uint(unsafe.Sizeof(passthru{})-72) // asserts 72 bytes

const (
	getLogPage = 0x02
	smartLog   = 0x02
	logBytes   = 512
	timeoutMS  = 5000
	allSpaces  = math.MaxUint32 // the log page is the controller's
)

// Read asks the disk that the kernel calls name, such as "nvme0n1". It fails with ErrUnreadable. It may take 5 seconds.
func Read(name string) (Smart, error) {
	f, err := os.Open("/dev/" + name)
	if err != nil {
		return Smart{}, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	defer f.Close()
	buf := make([]byte, logBytes)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&buf[0])
	// NUMD, the number of 4-byte words less one, stands in the upper half.
	cmd := passthru{opcode: getLogPage, nsid: allSpaces, addr: uint64(uintptr(unsafe.Pointer(&buf[0]))), dataLen: logBytes,
		cdw10: (logBytes/4-1)<<16 | smartLog, wait: timeoutMS}
	if status, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(adminCommand), uintptr(unsafe.Pointer(&cmd))); errno != 0 {
		return Smart{}, fmt.Errorf("%w: %s: %w", ErrUnreadable, name, errno)
	} else if status != 0 {
		return Smart{}, fmt.Errorf("%w: %s: status %#x", ErrUnreadable, name, status)
	}
	return parse(buf), nil
}

// parse takes the log page apart: 128-bit numbers are little-endian, data units are 1000 × 512 bytes.
func parse(b []byte) Smart {
	long := func(at int) float64 {
		return float64(binary.LittleEndian.Uint64(b[at:])) + math.Ldexp(float64(binary.LittleEndian.Uint64(b[at+8:])), 64)
	}
	return Smart{CriticalWarning: b[0], Kelvin: int(binary.LittleEndian.Uint16(b[1:])), SparePercent: int(b[3]), SpareThreshold: int(b[4]),
		PercentUsed: int(b[5]), WrittenBytes: long(48) * 512e3, MediaErrors: long(160)}
}
