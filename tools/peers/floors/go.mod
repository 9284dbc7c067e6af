module corfu-peers/floors

go 1.26.0
