# fish completion of streamfleet; made by `streamfleet completions fish`.

function __streamfleet_complete
    set -l words (commandline -opc)
    set -l typed (commandline -ct)
    set -l answer (command $words[1] complete -- $words[2..] "$typed" 2>/dev/null)
    if test "$answer" = :files
        __fish_complete_path "$typed"
    else
        printf '%s\n' $answer
    end
end

complete -c streamfleet -f -a '(__streamfleet_complete)'
