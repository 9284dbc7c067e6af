// Package pausebench measures for how long appends stand still while a cluster changes: a reconfiguration that was asked for, a member
// that dies, older entries that are copied to a new member. Clusters run in this process (internal/devcluster), with
// the settings that operators get by default. The pause of a change is the longest time that any append took which ended after the change
// began, several appenders having one outstanding each: what the slowest caller saw.
package pausebench
