// Package event is what a honeypot reports, what the sensor keeps and what the
// server stores, as measured on a HoneySens server 2.9.0.
//
// Decode takes what honeypots in the field send, repairs what has one meaning
// only and refuses the rest. Clean brings an event into the limits of the
// server, where one event over a limit makes it refuse a whole batch. An event
// that went through both is stored by the server.
package event
