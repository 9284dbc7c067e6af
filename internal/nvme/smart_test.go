package nvme

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"testing"
)

// The bytes stand where the specification puts them (NVM Express Base Specification, SMART / Health Information log page).
func TestParseTakesTheFieldsOfTheSpecification(t *testing.T) {
	b := make([]byte, logBytes)
	b[0], b[3], b[4], b[5] = 4, 97, 10, 112
	binary.LittleEndian.PutUint16(b[1:], 310)
	binary.LittleEndian.PutUint64(b[48:], 2_000_000)
	binary.LittleEndian.PutUint64(b[56:], 1)
	binary.LittleEndian.PutUint64(b[160:], 3)
	units := 2e6 + math.Ldexp(1, 64) // a variable: constants are not rounded
	want := Smart{CriticalWarning: 4, PercentUsed: 112, SparePercent: 97, SpareThreshold: 10, Kelvin: 310, WrittenBytes: units * 512e3, MediaErrors: 3}
	if got := parse(b); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestWhatIsNoDiskIsUnreadable(t *testing.T) {
	for _, name := range []string{"no-such-disk", "null"} {
		if s, err := Read(name); !errors.Is(err, ErrUnreadable) || s != (Smart{}) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}

// The lab has an emulated NVMe disk if it was started with one (LAB_NVME): it must answer.
func TestAnNVMeDiskAnswers(t *testing.T) {
	const disk = "nvme0n1"
	if _, err := os.Stat("/dev/" + disk); os.Getenv("CORFU_LAB") == "" || err != nil {
		t.Skip("needs the lab, with an NVMe disk")
	}
	s, err := Read(disk)
	if err != nil {
		t.Fatal(err)
	}
	if s.Kelvin < 200 || s.Kelvin > 400 || s.PercentUsed > 255 {
		t.Errorf("%+v", s)
	}
	t.Logf("%+v", s)
}
