package client

import (
	"fmt"

	"corfu/rdma"
	"corfu/rdma/fabric"
)

// openDevice opens the device that the options ask for, and says in the log which it is and why. speaks is what the cluster speaks; "": that
// is not known. Provider auto follows it, and another one that is not the cluster's is refused.
func openDevice(o Options, speaks string) (rdma.Device, error) {
	switch {
	case speaks == "" || o.Provider == speaks:
	case o.Provider == fabric.Auto && (o.DeviceName == "" || speaks == fabric.Verbs):
		o.Provider = speaks
	default:
		ours := o.Provider
		if ours == fabric.Auto {
			ours = fmt.Sprintf("verbs on device %s", o.DeviceName)
		}
		return nil, fmt.Errorf("client: of the cluster: %w", &rdma.ProviderError{Theirs: speaks, Ours: ours})
	}
	dev, reason, err := fabric.Open(fabric.Options{Provider: o.Provider, Device: o.DeviceName, Insecure: o.Insecure})
	if err != nil && speaks != "" {
		return nil, fmt.Errorf("client: the cluster speaks fabric %s: %w", speaks, err)
	}
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	o.Logger.Info("fabric", "provider", dev.Info().Provider, "device", dev.Info().Name, "reason", reason)
	return dev, nil
}
