package client

import (
	"fmt"

	"corfu/rdma"
	"corfu/rdma/fabric"
)

// openDevice opens the device that the options ask for, and says in the log which it is and why.
func openDevice(o Options) (rdma.Device, error) {
	dev, reason, err := fabric.Open(fabric.Options{Provider: o.Provider, Device: o.DeviceName, Insecure: o.Insecure})
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	o.Logger.Info("fabric", "provider", dev.Info().Provider, "device", dev.Info().Name, "reason", reason)
	return dev, nil
}
