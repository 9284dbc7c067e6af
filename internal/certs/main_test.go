package certs_test

import (
	"os"
	"testing"

	"corfu/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }
