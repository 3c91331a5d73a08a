# fish completion for callhome-nms: the program itself knows its words.
function __callhome_nms_words
	set -l before (commandline -opc)
	set -l current (commandline -ct)
	string match -q -- '-*' $current; and set -a before - # asks for the flags
	$before --generate-bash-completion 2>/dev/null
end
complete -c callhome-nms -f -a '(__callhome_nms_words)'
