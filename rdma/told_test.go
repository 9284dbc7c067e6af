package rdma_test

import (
	"testing"

	"corfu/rdma"
)

func TestTold(t *testing.T) {
	for _, x := range []struct{ listen, advertise, want string }{
		{"10.9.0.1:7700", "", "10.9.0.1:7700"},
		{"0.0.0.0:7700", "", "10.0.0.5:7700"},
		{"[::]:7700", "", "10.0.0.5:7700"},
		{"0.0.0.0:7700", "192.0.2.1", "192.0.2.1:7700"},
		{"10.9.0.1:7700", "192.0.2.1:99", "192.0.2.1:99"},
		{"[::]:7700", "fd00::1", "[fd00::1]:7700"},
		{"[::]:7700", "[fd00::1]", "[fd00::1]:7700"},
		{"[::]:7700", "[fd00::1]:99", "[fd00::1]:99"},
		{"[::]:7700", "unit1.example", "unit1.example:7700"},
	} {
		if got := rdma.Told(x.listen, x.advertise, rdma.Info{Addr: "10.0.0.5"}); got != x.want {
			t.Errorf("listening at %s, advertising %q: %s, not %s", x.listen, x.advertise, got, x.want)
		}
	}
}
