# bash completion of streamfleet; made by `streamfleet completions bash`.

_streamfleet() {
    local answer line
    COMPREPLY=()
    answer=$("${COMP_WORDS[0]}" complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null) || return 0
    if [[ $answer == :files ]]; then
        compopt -o filenames 2>/dev/null
        while IFS= read -r line; do
            COMPREPLY+=("$line")
        done < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
        return 0
    fi
    while IFS= read -r line; do
        # What comes after the tab says what the word does; bash has no place for it.
        [[ -n $line ]] && COMPREPLY+=("${line%%$'\t'*}")
    done <<<"$answer"
}

complete -F _streamfleet streamfleet
