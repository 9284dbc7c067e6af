package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"corfu/internal/nvme"
)

// diskHealthCommand is what corfu-disk-health.service runs: the one process that may ask disks, so
// that the daemons need no capability.
func (a *app) diskHealthCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "disk-health", Short: "Leave what NVMe disks say of their wear where units find it", Args: cobra.NoArgs,
		Long: `Ask every NVMe disk of this machine for its health, and leave the answers where units find them: Linux lets nobody without
CAP_SYS_ADMIN ask, and daemons have no capability. corfu-disk-health.timer runs it every minute.`,
		Example: "  sudo corfu devices disk-health",
	}
	cmd.Flags().StringVar(&out, "out", nvme.HealthDir, "`directory` for the answers; made if it is not there")
	cmd.RunE = a.body(func(context.Context, []string) error {
		if err := os.MkdirAll(out, 0o755); err != nil {
			return err
		}
		if err := nvme.Leave("/sys", out); err != nil {
			return fmt.Errorf("not all disks told their health: %w", err)
		}
		return nil
	})
	return cmd
}
