# bash completion for the callhome programs: each knows its own words. It is given
# the line's words, and prints one candidate a line, or :files.
_callhome() {
	local cur words cword IFS=$'\n'
	if declare -F _get_comp_words_by_ref >/dev/null; then
		_get_comp_words_by_ref -n := cur words cword
	else
		words=("${COMP_WORDS[@]}") cword=$COMP_CWORD cur=${COMP_WORDS[COMP_CWORD]}
	fi
	local found
	found=$("${words[0]}" __complete "${words[@]:1:cword}" 2>/dev/null)
	if [[ $found == :files ]]; then
		compopt -o default
		COMPREPLY=()
		return
	fi
	# readline replaces only what follows the last = or :.
	local word=${COMP_WORDS[COMP_CWORD]} candidate
	[[ $word == [=:] ]] && word=
	COMPREPLY=()
	# Names come from documents and devices. compgen -W would run $(...) in one, and
	# readline inserts a candidate as it is.
	while read -r candidate; do
		[[ -n $candidate && $candidate == "$cur"* ]] || continue
		printf -v candidate %q "${candidate#"${cur%"$word"}"}"
		COMPREPLY+=("$candidate")
	done <<< "$found"
}
complete -F _callhome callhome-trigger callhome-mgr callhome-nms
