package flashbench

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"corfu/tools/corfu/internal/bench"
)

// Fio is one way to run fio.
type Fio struct {
	Engine string // psync or io_uring
	Write  bool
	Depth  int
	Dir    string
	MB     int // size of the file, all of it written before
}

type fioOut struct {
	Jobs []struct {
		Read, Write struct {
			IOPS float64 `json:"iops"`
			Lat  struct {
				Percentile map[string]float64 `json:"percentile"`
			} `json:"lat_ns"`
		}
	} `json:"jobs"`
}

// warmUp is how long a row runs before it is measured.
const warmUp = 100 * time.Millisecond

// Run measures for d, after the warm-up: I/Os a second, and how long each took, counted from before the call: io_uring may do all the work in there.
func (f Fio) Run(ctx context.Context, d time.Duration) (rate float64, s bench.Sample, err error) {
	args := []string{"--name=x", "--filename=" + filepath.Join(f.Dir, "fio.dat"), fmt.Sprintf("--size=%dm", f.MB), "--overwrite=1",
		"--bs=4k", "--direct=1", "--ioengine=" + f.Engine, "--thread", "--time_based", fmt.Sprintf("--runtime=%dms", d.Milliseconds()),
		fmt.Sprintf("--ramp_time=%dms", warmUp.Milliseconds()),
		"--group_reporting", "--output-format=json", "--lat_percentiles=1", "--clat_percentiles=0", "--randrepeat=0"}
	if f.Write {
		args = append(args, "--rw=write", "--sync=dsync")
	} else {
		args = append(args, "--rw=randread")
	}
	if f.Engine == "psync" {
		args = append(args, fmt.Sprintf("--numjobs=%d", f.Depth))
		if f.Write && f.Depth > 1 {
			args = append(args, fmt.Sprintf("--size=%dm", f.MB/f.Depth), fmt.Sprintf("--offset_increment=%dm", f.MB/f.Depth))
		}
	} else {
		args = append(args, fmt.Sprintf("--iodepth=%d", f.Depth))
	}
	out, err := exec.CommandContext(ctx, "fio", args...).Output()
	if err != nil {
		return 0, s, fmt.Errorf("fio: %w", err)
	}
	var o fioOut
	if err := json.Unmarshal(out, &o); err != nil || len(o.Jobs) == 0 {
		return 0, s, fmt.Errorf("fio: output not understood: %w", err)
	}
	x := o.Jobs[0].Read
	if f.Write {
		x = o.Jobs[0].Write
	}
	at := func(q string) time.Duration { return time.Duration(x.Lat.Percentile[q]) }
	return x.IOPS, bench.Sample{P50: at("50.000000"), P99: at("99.000000"), P999: at("99.900000")}, nil
}
