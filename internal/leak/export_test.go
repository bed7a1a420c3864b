package leak

var FindWithin = find
