// Package clusterstatus judges the state of a cluster for operators, and gives it its JSON form. The leader of the layout servers
// judges, so that the command line, the dashboard and the web page say the same.
package clusterstatus

// Verdicts.
const (
	Healthy  = "healthy"
	Degraded = "degraded" // the log works, and somebody should see to it, or wait
	Down     = "down"     // appends or reads wait for somebody
)
