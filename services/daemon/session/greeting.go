package session

import "github.com/waltos/waltos/services/daemon/connector"

// methodHello is the notification that a server-hub is there, before it has sessions.
const methodHello = "session.hello"

// Greeter is a Backend that wants to know each server-hub that connects.
type Greeter interface {
	Greet(hub *connector.Peer)
}
