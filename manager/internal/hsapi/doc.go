// Package hsapi is the client of the HoneySens server: status out and wanted
// state in, events, firmware, and the way to the registry of service images.
// Formats, limits and status codes were measured on a HoneySens server 2.9.0.
//
// Requests and answers are signed with the sensor's secret (HMAC-SHA256), over
// HTTP/1.1 and TLS 1.2 or newer. The server's certificate is trusted through
// the chain of the configuration archive alone, under the name that the
// archive gives, wherever the connection leads to.
//
// Invariants:
//   - Nothing of an answer is used before its MAC was found right. For firmware
//     the server signs the headers' time only; TLS protects the bytes.
//   - Redirects are never followed, cookies never kept.
//   - An answer is limited in size, depth and time; keys that appear twice make
//     it invalid as a whole. A single setting or service that is wrong is
//     reported and left out, so that it does not hold up the others.
//   - A time sent with a status is never ahead of the server's clock, which is
//     asked for before the first one, and never before the last one: the server
//     refuses every status until a time that lay in the future is reached.
//   - A proxy sees CONNECT and what TLS does not hide. User and password go to
//     it when it asks for them, by NTLM rather than by Basic.
//   - Secrets are in no error and no log.
//
// Every error of a request is an *Error. Its class says who has to do something.
package hsapi
