package state

import "context"

const (
	methodWatch    = "watch"
	methodSnapshot = "snapshot"
	methodRegister = "register"
)

func connect(socket string, w *Watcher) remote { return nowhere{} }

var _ = context.Background
