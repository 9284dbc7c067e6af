package flash

import "golang.org/x/sys/unix"

// Free is about how many bytes of new segments there is room for, as far as capacity and volume allow. It asks the file system.
func (s *Store) Free() (int64, error) {
	var free int64
	switch v := s.vol.(type) {
	case *directory:
		var st unix.Statfs_t
		if err := unix.Statfs(v.dir, &st); err != nil {
			return 0, err
		}
		free = int64(st.Bavail) * st.Bsize
	case *device:
		free = v.free(s.shape.Load())
	}
	if limit := s.opts.Capacity; limit > 0 {
		free = min(free, max(0, limit-s.used.Load()))
	}
	return free, nil
}

// free is what the slots take that hold no segment.
func (v *device) free(x *shape) int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	size := v.table.slot
	if size == 0 { // no segment was ever made
		size = x.segmentBytes()
	}
	if size == 0 {
		return 0
	}
	return int64(v.slots(size)-len(v.table.occupied)) * size
}
