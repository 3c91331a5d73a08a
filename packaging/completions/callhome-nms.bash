# bash completion for callhome-nms: the program itself knows its words.
_callhome_nms() {
	local IFS=$'\n' current=${COMP_WORDS[COMP_CWORD]}
	local before=("${COMP_WORDS[@]:1:COMP_CWORD-1}")
	[[ $current == -* ]] && before+=(-) # asks for the flags
	COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" "${before[@]}" --generate-bash-completion 2>/dev/null)" -- "$current"))
}
complete -F _callhome_nms callhome-nms
