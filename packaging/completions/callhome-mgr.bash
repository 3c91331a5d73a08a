# bash completion for callhome-mgr: the program itself knows its words.
_callhome_mgr() {
	local IFS=$'\n' current=${COMP_WORDS[COMP_CWORD]}
	local before=("${COMP_WORDS[@]:1:COMP_CWORD-1}")
	[[ $current == -* ]] && before+=(-) # asks for the flags
	[[ $current != -* && ($3 == check || $3 == --*) ]] && return # a FILE, or what else a flag takes
	COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" "${before[@]}" --generate-bash-completion 2>/dev/null)" -- "$current"))
}
# Where it knows none, as after --config or check, it is a file.
complete -o default -F _callhome_mgr callhome-mgr
