package server

// Capacity is how many sessions a unit of a geometry serves at once.
var Capacity = capacity
