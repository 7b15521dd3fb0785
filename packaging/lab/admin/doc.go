// Package admin is the administration of the development server: its types, and
// a client for demo and tests.
//
// The API is JSON over plain HTTP and has no authentication; it belongs on a
// loopback address or a unix socket. Errors come as {"error": "text"} with a
// status of 400, 404, 409 or 500.
//
//	GET    /                                  a page that shows sensors and events
//	GET    /api/health                        {"status": "ok"}
//	GET    /api/sensors                       [Sensor]
//	POST   /api/sensors                       NewSensor -> Sensor
//	GET    /api/sensors/{id}                  Sensor
//	DELETE /api/sensors/{id}
//	PATCH  /api/sensors/{id}                  {poll key: value}: wanted values, verbatim
//	DELETE /api/sensors/{id}/wanted           back to the defaults
//	GET    /api/sensors/{id}/archive          s<id>.tar.gz
//	PUT    /api/sensors/{id}/services/{id}    Assignment
//	DELETE /api/sensors/{id}/services/{id}
//	PUT    /api/sensors/{id}/firmware/{id}    the revision that it should have
//	DELETE /api/sensors/{id}/firmware
//	GET    /api/services                      [Service]
//	POST   /api/services                      service archive -> Service; its image goes to the registry
//	POST   /api/services/define               Service without id -> Service; no image
//	GET    /api/firmware                      [Firmware]
//	POST   /api/firmware                      firmware archive -> Firmware
//	GET    /api/events?since=N&limit=N&wait=S [Event] with ids above since; waits up to S for one
//	DELETE /api/events
//	GET    /api/faults                        [Fault]
//	POST   /api/faults                        Fault
//	DELETE /api/faults
//	POST   /api/certificate                   {"newAuthority": bool}: make and announce another certificate
//	POST   /api/certificate/serve             serve the announced one
package admin
