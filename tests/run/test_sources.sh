# SPDX-License-Identifier: Apache-2.0
# What `seer pack` takes from its sources, and what its summary says about the rest. The rules are tested in
# tests/data/mpi/pack_sources*.
. "$(dirname "$0")/common.sh"

picture="$SEER_TEST_DATA/images/rgb.png"
photo() { for path; do mkdir -p "$(dirname "$path")"; cp "$picture" "$path"; printf '%s' "$path" >>"$path"; done; }
says() { grep -qF -- "$1" "$scratch/out.txt" || { cat "$scratch/out.txt"; fail "no \"$1\""; }; }

# Splits: the result is the same from any working folder, and for an archive or a list.
photo test/photos/train/cat/{1,2,3}.png test/photos/test/cat/9.png
tar -C test/photos -cf test/dot.tar .
tar -C test -czf test/top.tar.gz photos
find "$PWD/test/photos" -name '*.png' >test/list.txt
printf 'test/photos/test/cat/9.png\0' >zero.txt
expect 3 'a list is UTF-8 text' seer pack zero.txt -o none
n=0
for source in test/photos test/dot.tar test/top.tar.gz test/list.txt; do
  expect 0 "accepted   1 images" seer pack $source -o "split-$((n += 1))" --split test
  says "3 not in the split"
done
# The source is one folder too far up: the message names the right folder. A folder that holds splits is not a split.
mkdir up && cp -r test/photos up/ && echo text >up/README.txt && tar -cf up.tar -C up README.txt photos
expect 3 "the folder up/photos holds a folder of this name: give it as source" seer pack up -o none --split test
expect 0 "the folders test, train of up/photos are packed together; give that folder" seer pack up -o up-set --split photos
expect 0 "the folders test, train of up/photos are packed together" seer pack up -o up-all
expect 0 "accepted   1 images" seer pack up.tar -o up-tar --split test/

# A file that several sources reach is packed once, under its own name.
photo own/cat/1.png && mkdir near && ln -s ../own/cat/1.png near/2.png && ln -s ../own/cat near/linked
tar -cf own.tar own && cp own.tar near/
for sources in "near own" "own near" "own.tar own.tar" "near/own.tar near/own.tar" "own/cat/1.png own"; do
  rm -rf once
  # shellcheck disable=SC2086
  case $sources in *near\ * | *\ near) rm -f near/own.tar ;; *) cp own.tar near/ ;; esac
  expect 0 "accepted   1 images" seer pack $sources -o once
  says "repeated"
done
expect 0 "cat" seer inspect once
ln -s ../own.tar near/link.tar && rm near/2.png near/linked near/own.tar
expect 0 "accepted   1 images" seer pack own.tar near -o once-linked
says "1 repeated"
cd test
expect 0 "accepted   1 images" seer pack photos -o ../inside --split test
cd ..
expect 3 "no folder cat directly inside the sources, which hold the folders test, train" \
  seer pack test/photos -o none --split cat
expect 0 "the folders test, train of test/photos are packed together" seer pack test/photos -o mixed

# Links, hidden names, and names that are not UTF-8, on two ranks.
photo store/dog/1.png src/cat/2.png src/cat/.ipynb_checkpoints/2.png src/.Trash-0/files/3.png "src/caf"$'\xe9'"/4.png"
ln -s ../store/dog src/dog
ln -s . src/loop
ln -s nowhere src/cat/broken.png
expect 0 "accepted   3 images" ranks 2 pack src -o src-set
says "classes    3"
says "1 repeated"
says "1 unreadable"
says "1 hidden: .ipynb_checkpoints"
says "1 hidden: .Trash-0"
grep -qF '"hidden: .Trash-0: 1 files or folders' src-set/rejects.jsonl || fail "hidden folders are not in rejects.jsonl"
grep -qF 'a broken link to nowhere' src-set/rejects.jsonl || fail "the broken link is not in rejects.jsonl"
expect 0 "caf\\xE9" seer inspect src-set/images-00000.h5
expect 0 "accepted   5 images" seer pack src -o src-all --hidden

# The output folder's own name is not UTF-8.
odd="caf"$'\xe9'
mv src-set "$odd"
expect 0 "caf\\xE9" seer inspect "$odd/images-00000.h5"

# Archives inside sources: one is nested too deep to be read, and one is broken.
mkdir tars
for class in n01 n02; do
  photo ${class}_1.png
  tar -cf tars/$class.tar ${class}_1.png
done
tar -C tars -cf all.tar n01.tar n02.tar
tar -cf outer.tar all.tar tars/n01.tar
for source in tars all.tar "tars/n01.tar tars/n02.tar"; do
  rm -rf set
  expect 0 "classes    2, named by archives" seer pack $source -o set
done
expect 0 "2 not supported" seer pack outer.tar -o outer
# One archive is cut off inside an image, one inside compressed data: one rank and two refuse the same files.
head -c 700 tars/n01.tar >tars/n00.tar
photo many/{1..40}.png
tar -czf many.tar.gz many
head -c "$(($(stat -c %s many.tar.gz) / 2))" many.tar.gz >tars/many.tar.gz
expect 0 "2 broken archive" ranks 2 pack tars -o broken
expect 0 "2 broken archive" seer pack tars -o broken-alone
cmp broken/rejects.jsonl broken-alone/rejects.jsonl || fail "one rank refuses other files than two"
cmp broken/images-00000.h5 broken-alone/images-00000.h5 || fail "one rank packs other files than two"

# A file with two names in an archive is one file. Thumbnails of a network disk (@__thumb) are not a class.
photo links/cat/1.png links/@__thumb/1.png
ln links/cat/1.png links/cat/2.png
tar -cf links.tar links
expect 0 "1 hidden: @__thumb" seer pack links.tar -o links-set
says "1 repeated"

# Sparse files as tar itself stores them, if the file system supports holes.
photo holes/cat/1.png
truncate -s 200000 holes/cat/1.png
tar -C holes -S -cf holes.tar .
if [ "$(stat -c %s holes.tar)" -lt 100000 ]; then
  expect 0 "accepted   1 images, 0.2 MiB" seer pack holes.tar -o holes-set
fi

# Lists from other editors: byte order marks, line ends, UTF-16.
printf '\xef\xbb\xbf%s\r\n\xef\xbb\xbf%s \r' n01_1.png n02_1.png >list.txt
expect 0 "accepted   2 images" seer pack list.txt -o list-set --labels none
says "rejected   0 files"
printf '\xff\xfea\0' >wide.txt
expect 3 "iconv -f UTF-16 -t UTF-8" seer pack wide.txt -o wide
