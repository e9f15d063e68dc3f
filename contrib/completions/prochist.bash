# bash completion of prochist. Made by contrib/man/generate; do not edit.
_prochist() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command= words= i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i]} == -* ]] || { command=${COMP_WORDS[i]}; break; }
    done
    if [[ -z $command ]]; then
        COMPREPLY=($(compgen -W 'record replay doctor query ps tree show report timeline hunt export status boots gaps sql schema prune verify snapshot install-service uninstall-service help --version --help' -- "$word"))
        return
    fi
    case "$command:$before" in
        record:--db) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        record:--flush-interval) return ;;
        record:--exec-source) words='auto bpf proc' ;;
        record:--receive-buffer) return ;;
        record:--capture) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        record:--hang-timeout) return ;;
        record:--simulate-loss) return ;;
        record:--config) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        record:--keep) return ;;
        record:--max-size) return ;;
        record:--redact) return ;;
        record:--metrics-file) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        replay:--db) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        replay:--redact) return ;;
        doctor:--db) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        doctor:-o|doctor:--output) words='text json' ;;
        query:--db) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        query:-S|query:--since) return ;;
        query:-U|query:--until) return ;;
        query:--exited-since) return ;;
        query:--exited-until) return ;;
        query:--started-since) return ;;
        query:--started-until) return ;;
        query:--alive-at) return ;;
        query:-b|query:--boot) return ;;
        query:-p|query:--pid) return ;;
        query:--ppid) return ;;
        query:--id) return ;;
        query:-c|query:--comm) return ;;
        query:-x|query:--exe) return ;;
        query:-g|query:--grep) return ;;
        query:--user) return ;;
        query:--login-user) return ;;
        query:-u|query:--unit) return ;;
        query:--container) return ;;
        query:--tty) return ;;
        query:--session) return ;;
        query:--exit) return ;;
        query:--signal) return ;;
        query:--descendants-of) return ;;
        query:--ancestors-of) return ;;
        query:--min-duration) return ;;
        query:--max-duration) return ;;
        query:-n|query:--limit) return ;;
        query:--sort) return ;;
        query:--fields) return ;;
        query:-o|query:--output) words='table long json jsonl csv tsv' ;;
        query:--cursor-file) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        ps:--db) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        ps:--at) return ;;
        ps:--user) return ;;
        ps:--fields) return ;;
        ps:--sort) return ;;
        ps:-o|ps:--output) words='table jsonl csv tsv' ;;
        tree:--db) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        tree:--at) return ;;
        tree:-n|tree:--limit) return ;;
        tree:--depth) return ;;
        tree:-o|tree:--output) words='table json jsonl' ;;
        show:--db) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        show:-o|show:--output) words='long json jsonl' ;;
        report:--db) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        report:-S|report:--since) return ;;
        report:-U|report:--until) return ;;
        report:-n|report:--limit) return ;;
        report:-o|report:--output) words='table json' ;;
        timeline:--db) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        timeline:-S|timeline:--since) return ;;
        timeline:-U|timeline:--until) return ;;
        timeline:--exited-since) return ;;
        timeline:--exited-until) return ;;
        timeline:--started-since) return ;;
        timeline:--started-until) return ;;
        timeline:--alive-at) return ;;
        timeline:-b|timeline:--boot) return ;;
        timeline:-p|timeline:--pid) return ;;
        timeline:--ppid) return ;;
        timeline:--id) return ;;
        timeline:-c|timeline:--comm) return ;;
        timeline:-x|timeline:--exe) return ;;
        timeline:-g|timeline:--grep) return ;;
        timeline:--user) return ;;
        timeline:--login-user) return ;;
        timeline:-u|timeline:--unit) return ;;
        timeline:--container) return ;;
        timeline:--tty) return ;;
        timeline:--session) return ;;
        timeline:--exit) return ;;
        timeline:--signal) return ;;
        timeline:--descendants-of) return ;;
        timeline:--ancestors-of) return ;;
        timeline:--min-duration) return ;;
        timeline:--max-duration) return ;;
        timeline:-n|timeline:--limit) return ;;
        timeline:-o|timeline:--output) words='text json jsonl csv timesketch ecs perfetto html' ;;
        timeline:--group) words='unit user' ;;
        hunt:--db) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        hunt:-S|hunt:--since) return ;;
        hunt:-U|hunt:--until) return ;;
        hunt:--exited-since) return ;;
        hunt:--exited-until) return ;;
        hunt:--started-since) return ;;
        hunt:--started-until) return ;;
        hunt:--alive-at) return ;;
        hunt:-b|hunt:--boot) return ;;
        hunt:-p|hunt:--pid) return ;;
        hunt:--ppid) return ;;
        hunt:--id) return ;;
        hunt:-c|hunt:--comm) return ;;
        hunt:-x|hunt:--exe) return ;;
        hunt:-g|hunt:--grep) return ;;
        hunt:--user) return ;;
        hunt:--login-user) return ;;
        hunt:-u|hunt:--unit) return ;;
        hunt:--container) return ;;
        hunt:--tty) return ;;
        hunt:--session) return ;;
        hunt:--exit) return ;;
        hunt:--signal) return ;;
        hunt:--descendants-of) return ;;
        hunt:--ancestors-of) return ;;
        hunt:--min-duration) return ;;
        hunt:--max-duration) return ;;
        hunt:--level) words='informational low medium high critical' ;;
        hunt:-o|hunt:--output) words='text json timesketch' ;;
        export:--db) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        export:-S|export:--since) return ;;
        export:-U|export:--until) return ;;
        export:--exited-since) return ;;
        export:--exited-until) return ;;
        export:--started-since) return ;;
        export:--started-until) return ;;
        export:--alive-at) return ;;
        export:-b|export:--boot) return ;;
        export:-p|export:--pid) return ;;
        export:--ppid) return ;;
        export:--id) return ;;
        export:-c|export:--comm) return ;;
        export:-x|export:--exe) return ;;
        export:-g|export:--grep) return ;;
        export:--user) return ;;
        export:--login-user) return ;;
        export:-u|export:--unit) return ;;
        export:--container) return ;;
        export:--tty) return ;;
        export:--session) return ;;
        export:--exit) return ;;
        export:--signal) return ;;
        export:--descendants-of) return ;;
        export:--ancestors-of) return ;;
        export:--min-duration) return ;;
        export:--max-duration) return ;;
        export:--format) words='parquet' ;;
        export:--partition) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        status:--db) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        status:-o|status:--output) words='table json' ;;
        boots:--db) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        boots:-o|boots:--output) words='table jsonl csv tsv' ;;
        gaps:--db) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        gaps:-S|gaps:--since) return ;;
        gaps:-U|gaps:--until) return ;;
        gaps:-o|gaps:--output) words='table jsonl csv tsv' ;;
        sql:--db) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        sql:-o|sql:--output) words='table long json jsonl csv tsv' ;;
        sql:--timeout) return ;;
        prune:--db) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        prune:--config) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        prune:--keep) return ;;
        prune:--max-size) return ;;
        verify:--db) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
        verify:-o|verify:--output) words='text json' ;;
        snapshot:--db) words=; COMPREPLY=($(compgen -f -- "$word")); return ;;
    esac
    if [[ -z $words ]]; then
        [[ $word == -* ]] || { COMPREPLY=($(compgen -f -- "$word")); return; }
        case "$command" in
            record) words='--db --flush-interval --exec-source --receive-buffer --no-accounting --capture --hang-timeout --simulate-loss --simulate-silence --config --keep --max-size --redact --redact-defaults --metrics-file -h --help' ;;
            replay) words='--db --redact --redact-defaults -h --help' ;;
            doctor) words='--db -o --output -h --help' ;;
            query) words='--db -S --since -U --until --exited-since --exited-until --started-since --started-until --alive-at -b --boot --running --exited --failed --kernel-threads -p --pid --ppid --id -c --comm -x --exe -g --grep --user --login-user -u --unit --container --tty --session --exit --signal --descendants-of --ancestors-of --min-duration --max-duration -n --limit -r --reverse --sort --fields -o --output -f --follow --cursor-file --count --utc --no-pager --no-header --require-complete -h --help' ;;
            ps) words='--db --at --user --kernel-threads --fields --sort -o --output --no-header --utc --no-pager -h --help' ;;
            tree) words='--db --at -n --limit --depth --kernel-threads -o --output --utc --no-pager -h --help' ;;
            show) words='--db -o --output --utc -h --help' ;;
            report) words='--db -S --since -U --until -n --limit -o --output --utc --no-pager -h --help' ;;
            timeline) words='--db -S --since -U --until --exited-since --exited-until --started-since --started-until --alive-at -b --boot --running --exited --failed --kernel-threads -p --pid --ppid --id -c --comm -x --exe -g --grep --user --login-user -u --unit --container --tty --session --exit --signal --descendants-of --ancestors-of --min-duration --max-duration -n --limit -o --output --group --flows --utc --no-pager --require-complete -h --help' ;;
            hunt) words='--db -S --since -U --until --exited-since --exited-until --started-since --started-until --alive-at -b --boot --running --exited --failed --kernel-threads -p --pid --ppid --id -c --comm -x --exe -g --grep --user --login-user -u --unit --container --tty --session --exit --signal --descendants-of --ancestors-of --min-duration --max-duration --level -o --output --utc --no-pager --require-complete -h --help' ;;
            export) words='--db -S --since -U --until --exited-since --exited-until --started-since --started-until --alive-at -b --boot --running --exited --failed --kernel-threads -p --pid --ppid --id -c --comm -x --exe -g --grep --user --login-user -u --unit --container --tty --session --exit --signal --descendants-of --ancestors-of --min-duration --max-duration --format --partition --incremental --utc -h --help' ;;
            status) words='--db -o --output --metrics --utc -h --help' ;;
            boots) words='--db -o --output --utc -h --help' ;;
            gaps) words='--db -S --since -U --until -o --output --utc -h --help' ;;
            sql) words='--db -o --output --no-header --timeout -h --help' ;;
            schema) words='-h --help' ;;
            prune) words='--db --config --keep --max-size --dry-run --utc -h --help' ;;
            verify) words='--db -o --output -h --help' ;;
            snapshot) words='--db --anonymise -h --help' ;;
            install-service) words='--dry-run -h --help' ;;
            uninstall-service) words='--dry-run -h --help' ;;
            help) words='-h --help' ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -o filenames -F _prochist prochist
