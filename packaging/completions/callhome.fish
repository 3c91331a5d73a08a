# fish completion for the callhome programs: each knows its own words. It is given the
# line's words, and prints one candidate a line, or :files.
function __callhome_words
	set -l before (commandline -opc)
	set -l current (commandline -ct)
	set -l found ($before[1] __complete $before[2..-1] "$current" 2>/dev/null)
	if test "$found" = ":files"
		__fish_complete_path "$current"
	else
		string join -- \n $found
	end
end
for program in callhome-trigger callhome-mgr callhome-nms
	complete -c $program -f -a '(__callhome_words)'
end
