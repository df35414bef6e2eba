// Open the list of guides where it has a column of its own.
if (matchMedia("(min-width: 1000px)").matches) document.querySelector("details").open = true;
