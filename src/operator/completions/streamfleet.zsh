#compdef streamfleet
# zsh completion of streamfleet; made by `streamfleet completions zsh`.

_streamfleet() {
    local answer line word
    local -a found
    answer=$("${(Q)words[1]}" complete -- "${(@Q)words[2,CURRENT]}" 2>/dev/null) || return 1
    if [[ $answer == :files ]]; then
        _files
        return
    fi
    for line in "${(@f)answer}"; do
        [[ -n $line ]] || continue
        word=${line%%$'\t'*}
        found+=("${word//:/\\:}${${line#$word}/$'\t'/:}")
    done
    (( $#found )) && _describe -V streamfleet found
}

if [[ $funcstack[1] == _streamfleet ]]; then
    _streamfleet "$@"
else
    compdef _streamfleet streamfleet
fi
