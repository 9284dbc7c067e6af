package nvme

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	// HealthDir is where corfu-disk-health.service leaves what disks say of themselves, for daemons
	// that may not ask.
	HealthDir = "/run/corfu-disk-health"
	// healthFresh is how old that may be: the service runs every minute.
	healthFresh = 5 * time.Minute
)

// Health returns what the disk says of itself: asked directly where this process may do that, else
// as corfu-disk-health.service left it in dir within the last 5 minutes. It fails with
// ErrUnreadable.
func Health(dir, name string, now time.Time) (Smart, error) {
	s, err := Read(name)
	if err == nil {
		return s, nil
	}
	left, e := left(filepath.Join(dir, name+".json"), now)
	if e != nil {
		return Smart{}, fmt.Errorf("%w; corfu-disk-health.timer: %w", err, e)
	}
	return left, nil
}

func left(path string, now time.Time) (s Smart, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return s, err
	}
	if age := now.Sub(info.ModTime()); age > healthFresh {
		return s, fmt.Errorf("%s is %v old", path, age.Round(time.Second))
	}
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	return s, err
}

// Leave asks every NVMe disk that sysfs lists under sys, and leaves in dir what each says. A disk
// that does not answer loses its file. It fails where the answer of a disk could not be had or
// kept, after it has seen to the others.
func Leave(sys, dir string) error {
	return leave(sys, dir, Read)
}

func leave(sys, dir string, read func(name string) (Smart, error)) error {
	disks, err := filepath.Glob(filepath.Join(sys, "block", "nvme*n*"))
	if err != nil {
		return err
	}
	var bad error
	for _, disk := range disks {
		name := filepath.Base(disk)
		if hidden, err := os.ReadFile(filepath.Join(disk, "hidden")); err == nil && len(hidden) > 0 && hidden[0] == '1' {
			continue // a path of a multipath disk, which has a name of its own
		}
		path := filepath.Join(dir, name+".json")
		s, err := read(name)
		if err != nil {
			bad = errors.Join(bad, err)
			if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
				bad = errors.Join(bad, err)
			}
			continue
		}
		bad = errors.Join(bad, replace(path, s))
	}
	return bad
}

// replace writes s to a file in one step.
func replace(path string, s Smart) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	next := path + ".new"
	if err := os.WriteFile(next, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(next, path)
}
