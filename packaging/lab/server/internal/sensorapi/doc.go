// Package sensorapi is what sensors see of the development server: the calls of
// a HoneySens server 2.9.0 with its checks, their order, its status codes and
// its headers, as measured, and a Docker registry behind the same port.
//
// Order of the checks: an authentication header that is missing is 403; a sensor
// that is not known is 400; a clock that is off by more than 60 s and a wrong
// MAC are 403; then the body is validated (400), then stored (500 when the
// database does not take it). Only 200, 206 and the 404 of the firmware carry a
// MAC.
package sensorapi
