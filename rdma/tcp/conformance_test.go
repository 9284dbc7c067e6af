package tcp_test

import (
	"testing"

	"corfu/rdma"
	"corfu/rdma/rdmatest"
	"corfu/rdma/tcp"
)

func open(o tcp.Options) func(t *testing.T) rdma.Device {
	return func(t *testing.T) rdma.Device {
		d, err := tcp.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
}

func TestConformance(t *testing.T) { rdmatest.Run(t, open(tcp.Options{})) }

// TestConformanceReusedKeys runs the suite on a device that gives the key freed last again,
// as mlx5 does, and the tests of what must hold on such a device.
func TestConformanceReusedKeys(t *testing.T) {
	o := tcp.Options{ReuseKeys: true, HugePages: true}
	rdmatest.Run(t, open(o))
	rdmatest.RunReusedKeys(t, open(o))
}
