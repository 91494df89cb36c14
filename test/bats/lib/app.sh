# What a test pod runs. At the first instant every volume (/secrets, /secrets2) must have files, and no file may be
# empty. Then it looks again five times a second until it is told to end, so that a moment without files is not missed.
# A directory may be swapped away while find walks through it, of which find complains: what it finds is looked at below.
files=$(find -L /secrets* -path '*/..*' -prune -o -type f -print 2>/dev/null)
there() {
	for file in $files; do
		[ -s "$file" ] || return 1
	done
}
for volume in /secrets*; do
	case "$files" in
	*"$volume/"*) ;;
	*)
		echo "SECRETS MISSING at the start: $volume is empty"
		exit 1
		;;
	esac
done
if ! there; then
	echo "SECRETS MISSING at the start: an empty file"
	exit 1
fi
echo "SECRETS THERE $(date +%s)"
trap 'exit 0' TERM
while [ -z "$ONCE" ]; do
	there || echo "SECRETS MISSING later"
	# The database user, whenever it is another one; there is no end of line in the file, so that "read" always fails.
	read -r now 2>/dev/null </secrets/db/username || true
	[ "$now" = "$user" ] || echo "USER $now"
	user=$now
	sleep 0.2
done
