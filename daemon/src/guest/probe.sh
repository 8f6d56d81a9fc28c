# Exits 10 when a job's worker runs in this guest, 0 when none does. By executable, since a job
# can write any command line. Called as: sh -c "$(this)"
for process in /proc/[0-9]*; do
  executable=$(readlink "$process/exe" 2>/dev/null) || continue
  case $executable in
    /home/agent/bin/Agent.Worker | '/home/agent/bin/Agent.Worker (deleted)') exit 10 ;;
  esac
done
exit 0
