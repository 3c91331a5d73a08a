#compdef callhome-trigger callhome-mgr callhome-nms
# zsh completion for the callhome programs: each knows its own words. It is given the
# line's words, and prints one candidate a line, or :files.
local -a found
found=(${(f)"$(${words[1]} __complete "${(@)words[2,CURRENT]}" 2>/dev/null)"})
if [[ $found == :files ]]; then
	_files
else
	compadd -- $found
fi
