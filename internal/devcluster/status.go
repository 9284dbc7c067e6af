package devcluster

import (
	"context"
	"errors"

	"corfu/internal/wire/pb"
)

// Status is what the first layout server that runs says of the cluster; with an error, what it knows all the same.
func (c *Cluster) Status(ctx context.Context) (*pb.ClusterStatus, error) {
	for _, s := range c.Layouts {
		if s != nil {
			return s.Status(ctx)
		}
	}
	return nil, errors.New("devcluster: all layout servers are stopped")
}
