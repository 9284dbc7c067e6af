package clusterstatus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What the error of a call says of a member that does not answer as it should. The empty string
// means that nothing is known.
const (
	AbsentRefused = "refused" // nothing listens at its address: the process does not run
	AbsentSilent  = "silent"  // no answer: the process, its machine or the network stands still
	AbsentAnswers = "answers" // something answers there, and is not taken for the member
)

// Absence returns what the error of a control call says of the member that was called. gRPC hands
// on the text of a refused connection, and not its error.
func Absence(err error) string {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return AbsentSilent
	}
	s, isStatus := status.FromError(err)
	switch {
	case err == nil:
		return ""
	case !isStatus:
		return AbsentAnswers
	case s.Code() == codes.DeadlineExceeded, s.Code() == codes.Canceled:
		return AbsentSilent
	case s.Code() != codes.Unavailable, strings.Contains(s.Message(), "authentication handshake failed"):
		return AbsentAnswers
	case strings.Contains(s.Message(), "connection refused"):
		return AbsentRefused
	}
	return AbsentSilent
}

// restart returns what to do about a member that does not answer.
func restart(name, control, absence string) string {
	switch absence {
	case AbsentAnswers:
		return fmt.Sprintf("see what answers at %s in place of %s: its id, its log and its certificate", control, name)
	case AbsentSilent:
		return fmt.Sprintf("start %s at %s again, or, if it runs, look at its log and at the network to it", name, control)
	}
	return fmt.Sprintf("start %s at %s again", name, control)
}

// called returns the name of a member that does not answer, with the reason where something answers
// in its place.
func called(name, absence, err string) string {
	if absence != AbsentAnswers || err == "" {
		return name
	}
	return fmt.Sprintf("%s (%s)", name, err)
}
