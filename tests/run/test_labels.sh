# SPDX-License-Identifier: Apache-2.0
# `seer pack` with label files, lists and parts of a set, and what it says about wrong ones. The forms are tested in
# tests/data/labels_test.cpp and tests/data/mpi/pack_labels*.
. "$(dirname "$0")/common.sh"

picture="$SEER_TEST_DATA/images/rgb.png"
photo() { for path; do mkdir -p "$(dirname "$path")"; cp "$picture" "$path"; printf '%s' "$path" >>"$path"; done; }
says() { grep -qF -- "$1" "$scratch/out.txt" || { cat "$scratch/out.txt"; fail "no \"$1\""; }; }
holds() { seer inspect --json "$1" | tr -d ' \n' | grep -qF -- "$2" || { seer inspect --json "$1"; fail "$1: no $2"; }; }

photo flat/{1..12}.png
for i in {1..12}; do echo "$i.png,$([ "$i" -le 8 ] && echo cat || echo dog)"; done >labels.csv
expect 0 "classes    2, from labels.csv" ranks 2 pack flat -o set --labels labels.csv
holds set/images-00000.h5 '"images_per_class":{"cat":8,"dog":4}'

# Parts of a set: the same for any number of ranks.
for n in 1 2 4; do expect 0 "7 not in the subset" ranks $n pack flat -o "third-$n" --labels labels.csv --fraction 0.33 --seed 5; done
cmp third-1/images-00000.h5 third-2/images-00000.h5 && cmp third-1/images-00000.h5 third-4/images-00000.h5 ||
  fail "the subset depends on the number of ranks"
holds third-1/images-00000.h5 '"images_per_class":{"cat":3,"dog":2}'
expect 0 "accepted   6 images" seer pack flat -o three --labels labels.csv --per-class 3
expect 2 "class dog has 4 images, wanted 5 of each class" ranks 2 pack flat -o none --labels labels.csv --per-class 5
expect 2 "--fraction" seer pack flat -o none --labels labels.csv --fraction 0
expect 2 "--fraction" seer pack flat -o none --labels labels.csv --fraction 0.5 --per-class 2
expect 2 "5 images of each class leaves none of 12 images" seer pack flat -o none --labels none --per-class 5
seq -f '%g.png' 1 2 >list.txt
expect 0 "10 not on the list" ranks 2 pack flat -o listed --list list.txt --labels labels.csv

# Files that do not fit the sources, one message each.
echo 13.png,dog >>labels.csv
expect 3 "1 of 13 paths are not in the sources: labels.csv:13 (13.png)" ranks 2 pack flat -o none --labels labels.csv
expect 0 "accepted   12 images" seer pack flat -o missing --labels labels.csv --missing skip
photo flat/14.png
expect 3 "labels.csv gives 1 images no label: flat/14.png" ranks 2 pack flat -o none --labels labels.csv --missing skip
expect 0 "1 without a label" seer pack flat -o skipped --labels labels.csv --missing skip --unlabelled skip
expect 0 "1 images have no class" seer pack flat -o kept --labels labels.csv --missing skip --unlabelled keep
printf 'cat\ncow\n' >classes.txt
expect 3 'labels.csv:9: the class "dog" is none of the 2 in classes.txt' \
  ranks 2 pack flat -o none --labels labels.csv --classes classes.txt
printf '1.png,"cat\n' >quote.csv
expect 3 "quote.csv:1: a quote is not closed" seer pack flat -o none --labels quote.csv
expect 3 "nowhere.csv: cannot be read" ranks 2 pack flat -o none --labels nowhere.csv
echo '{"images": [' >broken.json
expect 3 "broken.json: not JSON" seer pack flat -o none --labels broken.json
[ ! -e none/images-00000.h5 ] || fail "a refused pack left shards"

# One class only, and classes of one image: warnings.
printf '%s,cat\n' {1..12}.png 14.png >one.csv
expect 0 "all images have the same class" seer pack flat -o one-class --labels one.csv
{ printf '%s,cat\n' {1..11}.png; printf '12.png,elk\n14.png,yak\n'; } >rare.csv
expect 0 "2 of 3 classes have one image only: elk, yak" seer pack flat -o rare --labels rare.csv

# The other forms.
rm flat/14.png
mkdir voc
printf '<annotation><filename>1.png</filename><object><name>cat</name></object><object><name>dog</name><difficult>1</difficult></object></annotation>' >voc/1.xml
printf '<annotation><filename>2.png</filename><object><name>cat</name></object><object><name>dog</name></object></annotation>' >voc/2.xml
expect 0 "targets    3 (1.50 an image)" ranks 2 pack flat -o voc-set --labels voc:voc --unlabelled skip
holds voc-set/images-00000.h5 '"ignored_targets":1'
if command -v h5dump >/dev/null; then
  h5dump -d /images/ignored_begin -y voc-set/images-00000.h5 | grep -qE '^ *0, 1, 1$' || fail "h5dump does not read the shard"
fi
echo '{"images":[{"id":7,"file_name":"1.png"},{"id":8,"file_name":"x/2.png"}],"categories":[{"id":1,"name":"cat"},{"id":3,"name":"dog"}],
  "annotations":[{"image_id":8,"category_id":1,"segmentation":[[1,2]]},{"image_id":8,"category_id":3},{"image_id":7,"category_id":3}]}' >coco.json
expect 0 "classes    2, from coco.json" ranks 2 pack flat -o coco-set --labels coco.json --unlabelled skip
holds coco-set/images-00000.h5 '"images_per_class":{"cat":1,"dog":2}'

# Training reads a part of the labelled images only where it is supervised.
write_config run.toml run 2
expect 2 'it has no effect where method.kind = "swav"' seer pretrain run.toml --set data.fraction=0.1
