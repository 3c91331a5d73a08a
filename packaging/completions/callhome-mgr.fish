# fish completion for callhome-mgr: the program itself knows its words.
function __callhome_mgr_words
	set -l before (commandline -opc)
	set -l current (commandline -ct)
	string match -q -- '-*' $current; and set -a before - # asks for the flags
	$before --generate-bash-completion 2>/dev/null
end
complete -c callhome-mgr -f -a '(__callhome_mgr_words)'
