# fish completion for callhome-mgr: the program itself knows its words.
function __callhome_mgr_words
	set -l before (commandline -opc)
	set -l current (commandline -ct)
	string match -q -- '-*' $current; and set -a before - # asks for the flags
	$before --generate-bash-completion 2>/dev/null
end
complete -c callhome-mgr -f -a '(__callhome_mgr_words)'
# check takes a FILE, and so do some flags.
complete -c callhome-mgr -n '__fish_seen_subcommand_from check' -F
complete -c callhome-mgr -n "string match -q -- '--*' (commandline -opc)[-1]" -F
