# power.awk: reads the consoles of all boots in their order. Whatever was acknowledged before a cut must be there after it, and what was
# acknowledged to be gone must not come back; only what was under way may be either.
function wrong(text) { print "boot " boot ": " text; failures++ }
function key(kind, name) { return (kind == "started" ? "container" : kind) " " name }
$1 != "power:" { next }
$2 == "boot" { boot++; delete seen; delete shown; slow = $5 > slow ? $5 : slow }
$2 == "failed" || $2 == "failed:" { wrong($0) }
$2 == "begin" { state[key($3, $5)] = "maybe"; if ($3 == "started") ran[$5] = 0 }
$2 == "done" {
  state[key($3, $5)] = $4 == "+" ? "there" : "gone"; acknowledged++
  if ($3 == "started") ran[$5] = $4 == "+"
  # with a volume goes what is in it
  if ($3 == "volume" && $4 == "-") state[key("file", $5)] = "gone"
}
$2 == "stopped" { code = 9 }
$2 == "is" {
  seen[key($3, $4)] = 1
  if ($3 == "container") shown[$4] = substr($0, index($0, $5))
  if ($3 == "file" && $5 != "content" || $3 == "file" && "v" $6 != $4) { if (state[key("file", $4)] == "there") wrong("torn: " $0) }
}
$2 == "runs" && ($4 " " $5 " " $6 != "made " substr($3, 2) " whole") { wrong("an image is damaged: " $0) }
$2 == "joins" && $4 != 1 { wrong("a network does not work: " $0) }
$2 == "exec" { works = 1 }
$2 == "verified" {
  for (k in state) {
    if (state[k] == "there" && !(k in seen)) wrong("lost: " k)
    if (state[k] == "gone" && (k in seen)) wrong("came back: " k)
    if (state[k] == "maybe") state[k] = (k in seen) ? "there" : "gone"
  }
  if (shown["forever"] !~ /^running/) wrong("not started again: forever is " shown["forever"])
  if (!works) wrong("exec does not work")
  for (name in ran) if (ran[name] && (name in shown)) {
    if (code == 9 ? shown[name] !~ /^exited 9/ : shown[name] !~ /^exited 255 the host was restarted/) wrong(name " is " shown[name])
    ran[name] = 0; ended++
  }
  works = 0; code = 255; verified++
}
END {
  print verified " boots looked at, " acknowledged " changes acknowledged, " ended " running containers ended by a cut, slowest answer " slow " s, " failures + 0 " wrong"
  exit failures > 0 || verified < wanted
}
